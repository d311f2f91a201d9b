"""Arms run on tasks: tables, dose and response, untrained dictionaries, faithfulness."""
