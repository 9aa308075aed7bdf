"""Makes standard input the controlling terminal, so that Ctrl-C reaches the program, then becomes that program."""

import fcntl
import os
import sys
import termios

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
