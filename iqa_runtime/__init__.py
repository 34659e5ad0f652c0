"""What every command needs: errors, files, tables, options, checkpoints, processes."""
