#!/bin/busybox sh
# The first process of the Linux guest that the benchmark compares with (tools/bench-linux.ts). What
# it does comes from the kernel's command line: bench=pktgen size=N | receive | echo.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for word in $(cat /proc/cmdline); do
  case $word in
    bench=*) bench=${word#bench=} ;;
    size=*) size=${word#size=} ;;
  esac
done
while read -r module; do insmod "/modules/$module"; done </modules/order
ip link set lo up
ip address add 192.0.2.2/24 dev eth0
ip link set eth0 up
echo "ready $bench"
case $bench in
  pktgen)
    echo add_device eth0 >/proc/net/pktgen/kpktgend_0
    for line in "count 0" "clone_skb 1000" "burst 64" "pkt_size $size" "delay 0" \
      "dst 192.0.2.1" "dst_mac 02:00:00:00:00:01"; do
      echo "$line" >/proc/net/pktgen/eth0
    done
    echo start >/proc/net/pktgen/pgctrl
    ;;
  echo) udp-echo 7 ;;
esac
# Frames that nobody wants are counted and dropped by the kernel.
while :; do sleep 1000; done
