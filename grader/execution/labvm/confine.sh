# shellcheck shell=sh
# The text of `unshare ... sh -ec TEXT confine COMMAND...`: runs the command with a root that has /usr and the
# command's own processes.
mount -t tmpfs -o size=1m,mode=0755 confine /tmp
cd /tmp || exit
mkdir root
fill_root
mkdir root/proc
mount -t proc proc root/proc
exec /usr/sbin/chroot root "$@"
