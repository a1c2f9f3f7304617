#!/bin/sh
# After an installation or an upgrade. $1 is "configure" and $2 the version before
# (deb), or how many versions there are now (rpm).
set -e
case "$1" in
configure) first=$([ -z "$2" ] && echo yes || echo no) ;;
1) first=yes ;;
[2-9] | [1-9][0-9]*) first=no ;;
*) exit 0 ;; # deb: abort-upgrade and its like
esac
returns=no # after a removal: enabled or not as it was
if [ -e /run/srvrelay.returns ]; then
  rm /run/srvrelay.returns
  returns=yes
fi

nologin=/usr/sbin/nologin
[ -x "$nologin" ] || nologin=/sbin/nologin
getent group srvrelay >/dev/null || groupadd --system srvrelay
getent passwd srvrelay >/dev/null || useradd --system --gid srvrelay --no-create-home \
  --home-dir /var/lib/srvrelay --shell "$nologin" --comment "srvrelay, an SMTP relay" srvrelay

# The folders belong to the relay; what is in them is only touched when it is new.
[ -d /var/lib/srvrelay ] || install -d -o srvrelay -g srvrelay -m 0700 /var/lib/srvrelay
# An rpm gives the folder back to root in every upgrade, and the file when it was
# not changed. The file comes first: the folder's owner can put a link in its
# place, which -h does not follow.
if [ $first = yes ] || [ "$1" != configure ]; then
  [ "$(stat -c %U:%G /etc/srvrelay/srvrelay.yaml 2>/dev/null)" != root:root ] ||
    chgrp -h srvrelay /etc/srvrelay/srvrelay.yaml
  chown -h srvrelay:srvrelay /etc/srvrelay
fi

# Where systemd does not run (a container, an image that is being built) there is
# nothing to start; the service is enabled all the same.
if command -v systemctl >/dev/null; then
  [ $first = no ] || systemctl --no-reload enable srvrelay.service >/dev/null 2>&1 || true
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    # A policy of the machine may forbid to start services (invoke-rc.d, policy-rc.d).
    if [ ! -x /usr/sbin/policy-rc.d ] || /usr/sbin/policy-rc.d srvrelay start >/dev/null 2>&1; then
      if [ $first = yes ] || { [ $returns = yes ] && systemctl --quiet is-enabled srvrelay.service; }; then
        systemctl start srvrelay.service ||
          echo "srvrelay does not run yet; see: journalctl -u srvrelay" >&2
      else
        systemctl try-restart srvrelay.service || true
      fi
    fi
  fi
fi
