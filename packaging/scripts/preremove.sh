#!/bin/sh
# Before a removal; an upgrade goes on with the service that runs. $1 is "remove"
# (deb), or how many versions are left (rpm).
set -e
case "$1" in
remove | 0)
  if [ -d /run/systemd/system ]; then
    systemctl stop srvrelay.service srvrelay-smtp.socket srvrelay-submissions.socket srvrelay-submission.socket || true
  fi
  if command -v systemctl >/dev/null; then
    systemctl --no-reload disable srvrelay.service srvrelay-smtp.socket srvrelay-submissions.socket \
      srvrelay-submission.socket >/dev/null 2>&1 || true
  fi
  ;;
esac
