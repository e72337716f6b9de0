#!/bin/sh
# Process 1 of a host, in namespaces of its own: makes it a machine of its own, says so, and stays until its standard
# input closes. The kernel closes it when the maker of the lab ends, however it ends, and with process 1 it ends all
# others of the host and takes away its mounts and its network.
#
# boot_host.sh HOST LAB_DIR [FOLDER PLACE]...    each FOLDER is seen at PLACE on this host only
set -eu
host=$1 lab_dir=$2
shift 2
hostname "$host"
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 shm /dev/shm
mount --bind "$lab_dir/$host/hosts" /etc/hosts
mount --bind "$lab_dir/ssh_config" /etc/ssh/ssh_config
# The tester's own start-up files are not the lab's.
if [ -e ~/.bashrc ]; then mount --bind /dev/null ~/.bashrc; fi
# Ctrl-C of DeepSpeed's launcher calls `pkill -f` on each host: here that is a script that ends processes by number.
mount -t tmpfs -o mode=755 own /usr/local/sbin
install -m 755 "$lab_dir/pkill" /usr/local/sbin/pkill
while [ $# -gt 0 ]; do
    mount --bind "$1" "$2"
    shift 2
done
ip link set lo up
mkdir /run/sshd
/usr/sbin/sshd -f "$lab_dir/sshd_config" -E "$lab_dir/$host/sshd.log"
until [ -e /run/sshd.pid ]; do sleep 0.01; done
echo ready
cat >/dev/null
