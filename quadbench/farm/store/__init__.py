"""Store: artifacts and files of launches on one host -> the same on another, through a folder or a bucket that both reach."""
