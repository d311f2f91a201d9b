"""SAEs given away: in the files of other projects, and as a folder for the Hugging Face hub."""
