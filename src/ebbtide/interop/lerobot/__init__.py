"""LeRobot's data sets, format v3.0: read from a folder or the hub, written to a folder.

    meta/info.json                             version, fps, features: each one's type, shape and names
    meta/stats.json                            of each feature: min, max, mean, std, count, q01 … q99
    meta/tasks.parquet                         the instruction of each task_index
    meta/episodes/chunk-000/file-000.parquet   a row an episode: length, files, place in the videos, statistics
    data/chunk-000/file-000.parquet            a row a step: state, action, timestamp, indices
    videos/KEY/chunk-000/file-000.mp4          a camera's frames, several episodes one after the other

There a camera's key is observation.images.NAME or observation.NAME, here it is called NAME.
"""

from .policies import load_policy
from .reading import open_dataset, read_dataset, read_info, read_stats
from .writing import write_dataset

__all__ = ["load_policy", "open_dataset", "read_dataset", "read_info", "read_stats", "write_dataset"]
