"""LeRobotDataset v3.0 on disk: Parquet tables, MP4 videos, JSON descriptions. Written and checked, without LeRobot."""
