"""Run the `liveavatar-emulator` command with `python -m liveavatar_emulator`."""

from liveavatar_emulator.cli import main

if __name__ == "__main__":
    main()
