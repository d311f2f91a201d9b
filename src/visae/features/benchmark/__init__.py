"""An SAE by the metrics of visaebench and of saev: as they define them, and, where that is wrong, done right."""
