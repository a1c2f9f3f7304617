#!/bin/sh
# Before an installation. Debian tells only here that a package comes back which
# was removed and not purged ($1 is "install" and $2 a version): postinstall would
# take it for an upgrade, and not start what the removal has stopped.
set -e
[ "$1" != install ] || [ -z "$2" ] || touch /run/srvrelay.returns
