"""Reading a Parquet file holds a row group, not the file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.data.row_groups import batches


def test_what_is_held_of_a_file_does_not_grow_with_it(tmp_path: Path) -> None:
    file, groups, rows = tmp_path / "a.parquet", 40, 1000
    table = pa.table({"a": np.random.default_rng(0).random(rows * groups * 10)})
    pq.write_table(table, file, row_group_size=rows * 10)
    size = table.nbytes
    del table
    before = pa.total_allocated_bytes()
    most = seen = 0
    with pq.ParquetFile(file) as opened:
        for batch in batches(opened, rows=rows):
            seen += batch.num_rows
            most = max(most, pa.total_allocated_bytes() - before)
    assert seen == rows * groups * 10
    assert most < size / 4
