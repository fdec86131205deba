#!/bin/busybox sh
# A Linux guest to compare with: the first process of a virtual machine that boots the lab's kernel
# and initramfs with one network card. ROLE on the kernel's command line says what it does: `source`
# floods DST with pktgen, `sink` only takes frames. Started by test/bench/vhost-net.test.ts, which
# measures at the other end and ends it.
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec >/dev/ttyS0 2>&1 </dev/null
while read -r module; do
  insmod "/modules/$module.ko" || echo "module $module cannot be loaded"
done </modules/guest-order
# By its device, because of what else may be there.
for card in /sys/class/net/*; do
  if [ -e "$card/device" ]; then card=${card##*/}; break; fi
done
ip link set "$card" up
if [ "$ROLE" = source ]; then
  echo "add_device $card" >/proc/net/pktgen/kpktgend_0
  for setting in 'count 0' 'pkt_size 60' "dst_mac $DST" 'dst 192.0.2.1' 'udp_dst_min 9' \
    'udp_dst_max 9' 'clone_skb 64' 'burst 64'; do
    echo "$setting" >"/proc/net/pktgen/$card" || echo "pktgen refuses $setting"
  done
  echo start >/proc/net/pktgen/pgctrl &
fi
echo "ready $card"
sleep 100000
