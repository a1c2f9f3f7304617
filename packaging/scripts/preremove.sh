#!/bin/sh
# Before a removal; an upgrade goes on with the service that runs. $1 is "remove"
# (deb), or how many versions are left (rpm).
set -e
units="srvrelay.service srvrelay-smtp.socket srvrelay-submissions.socket srvrelay-submission.socket"
case "$1" in
remove | 0) [ ! -d /run/systemd/system ] || systemctl stop $units || true ;;
esac
# Debian keeps until a purge what was enabled, as it keeps the configuration.
if [ "$1" = 0 ] && command -v systemctl >/dev/null; then
  systemctl --no-reload disable $units >/dev/null 2>&1 || true
fi
