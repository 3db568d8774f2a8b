# shellcheck shell=sh
# Runs the command line given as argument where it finds /usr, what came by standard input as a tar file, and
# an empty /tmp: no other file of this machine. The file module.o that it makes there is the result.
# It is the text of `unshare --user --map-root-user --mount sh -ec TEXT jail COMMAND`.
mkdir root
mount -t tmpfs -o size=64m,mode=0755 jail root
mkdir root/usr root/tmp root/kit
mount --rbind /usr root/usr
for name in bin lib lib32 lib64 libx32; do
    if [ -L "/$name" ]; then
        cp -P "/$name" root/
    elif [ -d "/$name" ]; then
        mkdir "root/$name"
        mount --rbind "/$name" "root/$name"
    fi
done
tar -x -C root/kit
/usr/sbin/chroot root sh -c "cd /kit && exec $1"
cp root/module.o .
