"""How the bundled models were made: each module is a command, deterministic by its seed."""
