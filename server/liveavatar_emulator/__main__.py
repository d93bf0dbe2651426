"""`python -m liveavatar_emulator` is the same as the `liveavatar-emulator` command."""

from liveavatar_emulator.cli import main

if __name__ == "__main__":
    main()
