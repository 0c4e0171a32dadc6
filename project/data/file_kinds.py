"""The kind of a file that is neither text nor tokens, by its first bytes; and the file beside one of tokens."""

from pathlib import Path

TOKENS, INDEX = ".bin", ".idx"

ALLOWED_CONTROLS = b"\t\n\v\f\r\x1b"
CONTROLS = bytes(code for code in [*range(32), 127] if code not in ALLOWED_CONTROLS)
"""The control characters that texts do not have."""

# The bytes with which a kind begins, longer ones before those that they begin with; what it is, and what to do.
MAGIC = {
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"\x1f\x8b": "compressed by gzip; give it a name that ends in .gz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; give it a name that ends in .zst",
    b"BZh": "compressed by bzip2; unpack it, or compress it by gzip or zstd",
    b"\xfd7zXZ": "compressed by xz; unpack it, or compress it by gzip or zstd",
    b"7z\xbc\xaf": "a 7-zip archive; unpack it",
    b"PAR1": "Parquet; give it a name that ends in .parquet",
    b"ARROW1": "an Arrow file; write it as Parquet, or read a saved dataset by data=hf",
    b"\xff\xff\xff\xff": "an Arrow stream; write it as Parquet, or read a saved dataset by data=hf",
    b"ORC": "an ORC file; write it as Parquet",
    b"\x93NUMPY": "a NumPy array; write its tokens as a .bin file, by tofile",
    b"\x80\x02": "a pickle",
    b"%PDF": "a PDF; extract its text",
    b"\xff\xfe\x00\x00": "UTF-32; convert it: iconv -f UTF-32 -t UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32; convert it: iconv -f UTF-32 -t UTF-8",
    b"\xff\xfe": "UTF-16; convert it: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16; convert it: iconv -f UTF-16 -t UTF-8",
}
TAR, TAR_AT = b"ustar", 257


def other_kind(begin: bytes) -> str | None:
    """Returns the kind of a file that begins so, and what to do with it; None for a kind that is not known."""
    if begin[TAR_AT:].startswith(TAR):
        return "a tar archive; unpack it"
    return next((kind for magic, kind in MAGIC.items() if begin.startswith(magic)), None)


def beside(path: Path, suffix: str) -> Path | None:
    """The file of the same name with another suffix, in capitals where the path's own is; None if there is none."""
    of_same_case = suffix.upper() if path.suffix.isupper() else suffix
    files = (path.with_suffix(of_same_case), path.with_suffix(suffix))
    return next((file for file in files if file.is_file()), None)
