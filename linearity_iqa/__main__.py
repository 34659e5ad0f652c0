"""`python -m linearity_iqa` is the command linearity-iqa."""
from iqa_runtime.commands import main

if __name__ == '__main__':
    main()
