#!/bin/sh
# The lab's first process once the host's files are its root: mounts what programs expect, runs the
# job with the virtio console as its terminal, leaves the job's status in a file, and turns the lab
# off. Started by init.sh with LAB_HARNESS (this package), LAB_DIRECTORY (the project's directory),
# LAB_BUILD (its build directory) and LAB_JOB (a directory below that, with the script `job`).

fresh() { # <directory> <mode>: an empty one, unless the project lies in it
  case "$LAB_DIRECTORY/" in "$1"/*) return ;; esac
  mount -t tmpfs -o "mode=$2" tmpfs "$1"
}
fresh /tmp 1777
fresh /run 755
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=none build "$LAB_BUILD"
chmod 666 /dev/kvm /dev/net/tun /dev/vhost-net 2>/dev/null
ip link set lo up
export HOME=/root TERM="${TERM:-linux}" QEMU_TEST_HARNESS_LAB="$(uname -r)"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd "$LAB_DIRECTORY" || echo "no directory $LAB_DIRECTORY"
date +%s.%N >"$LAB_JOB/up"
setsid -c -w /bin/sh "$LAB_JOB/job" <>/dev/hvc0 >&0 2>&1
echo $? >"$LAB_JOB/status"
sync
echo o >/proc/sysrq-trigger
sleep 60
