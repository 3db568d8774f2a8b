#!/bin/sh
# Runs a command in a Debian root, in its own mount and process namespaces, which end with the command:
#     unshare --mount --pid --fork --kill-child sh enter.sh ROOT SCRATCH KVM KIT FOLDER COMMAND...
# SCRATCH   an empty folder: files that the command writes stay in memory there and are gone at the end;
#           empty: the command changes ROOT itself
# KVM       1: it has this machine's /dev/kvm
# KIT       a clone, of which FOLDER in the root becomes a clone; empty: none
set -eu
root=$1 scratch=$2 kvm=$3 kit=$4 folder=$5
shift 5

if [ "$scratch" ]; then
    mount -t tmpfs -o size=90% machine "$scratch"
    mkdir "$scratch/changes" "$scratch/work" "$scratch/root"
    mount -t overlay -o "lowerdir=$root,upperdir=$scratch/changes,workdir=$scratch/work" machine "$scratch/root"
    root=$scratch/root
else
    mount --bind "$root" "$root"
fi
cd "$root"

mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=755 dev dev
for device in null zero full random urandom tty ${kvm:+kvm}; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr

rm -f etc/resolv.conf
cp /etc/resolv.conf etc/resolv.conf
if [ "$kit" ]; then
    git clone -q --no-hardlinks "$kit" "./$folder"
fi

# Not chroot: a process in one can't create user namespaces (user_namespaces(7)), as the kit's runner does.
# The program pivot_root is not installed everywhere; 155 is the system call on x86-64.
python3 -c 'import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).syscall(155, b".", b"."):
    sys.exit("pivot_root: " + os.strerror(ctypes.get_errno()))'
umount -l .
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb HOME=/root "$@"
