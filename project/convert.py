"""Convert weights: `python project/convert.py to_hf CKPT DIR`, `from_hf DIR CKPT`."""

from project.commands.convert import main

if __name__ == "__main__":
    main()
