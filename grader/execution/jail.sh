# shellcheck shell=sh
# The text of `unshare --user --map-root-user --mount sh -ec TEXT jail COMMAND NAME...`: runs the shell's COMMAND
# in /kit, which holds what came by standard input as a tar file, and keeps the files with these names that it
# leaves in /out. The command sees /usr read-only, an empty /tmp and nothing else of this machine: no other
# folder, process, network or capability. Its memory, time, processes and output are the runner's matter.
mkdir root out
mount -t tmpfs -o size=192m,nr_inodes=20k,mode=0755 jail root
mount -t tmpfs -o size=32m,nr_inodes=16,mode=0755 jail out
fill_root
mkdir root/tmp root/kit root/out
mount --bind out root/out
tar -x -C root/kit
status=0
# Without capabilities, and with no way to new ones: a process in a chroot can't make a user namespace.
unshare --mount --pid --net --ipc --uts --fork --kill-child /usr/sbin/chroot root \
    setpriv --no-new-privs --bounding-set=-all --inh-caps=-all sh -c "cd /kit && $1" || status=$?
shift
# Each may be a link to anything, which is not followed.
for name; do
    if [ -f "out/$name" ] && [ ! -L "out/$name" ]; then
        cp "out/$name" "$name"
    fi
done
exit "$status"
