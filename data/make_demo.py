"""Make the demo data set (see iqa_data/demo.py)."""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_data.demo import main

if __name__ == '__main__':
    main()
