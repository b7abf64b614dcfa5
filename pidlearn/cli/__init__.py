"""The command line: `main` holds the table of commands, every other module is one command or what several share."""
