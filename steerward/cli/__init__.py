"""The command line. Subsystems are imported only inside the command that needs them."""
