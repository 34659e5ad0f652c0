"""Parts for the tests of shards: tar files and Parquets made of images."""
import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scored import photo


def png(seed: int) -> bytes:
    """The bytes of photo(seed) as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(photo(seed)).save(buffer, 'PNG')
    return buffer.getvalue()


def save_tar(path: str | Path, members: dict[str, bytes]) -> str:
    """Write a tar; return its path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w') as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


def save_parquet(path: str | Path, rows: int = 100, /, **columns: list) -> str:
    """Write a Parquet of row groups of `rows`; return its path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return str(path)
