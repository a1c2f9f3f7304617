#!/bin/sh
# After a removal. The queue, the configuration and the user stay until a purge,
# which only Debian has; an rpm leaves them.
set -e
case "$1" in
remove | 0)
  [ ! -d /run/systemd/system ] || systemctl daemon-reload || true
  ;;
purge)
  # What is a mount is emptied, and cannot go.
  for dir in /var/lib/srvrelay /run/srvrelay /etc/srvrelay; do
    rm -rf "$dir" 2>/dev/null || true
    [ ! -e "$dir" ] || echo "srvrelay: $dir is left (is it a mount?): remove it yourself" >&2
  done
  if getent passwd srvrelay >/dev/null; then userdel srvrelay || true; fi
  if getent group srvrelay >/dev/null; then groupdel srvrelay || true; fi
  rm -rf /etc/systemd/system/srvrelay.service.d /etc/systemd/system/srvrelay-*.socket.d \
    /etc/systemd/system/*.wants/srvrelay.service /etc/systemd/system/*.wants/srvrelay-*.socket
  ;;
esac
