"""How training reaches a machine: in the rule's own process, or submitted to Slurm and waited for."""
