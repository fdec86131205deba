// The packet codec as one import.

export * from "./address";
export * from "./arp";
export * from "./checksum";
export * from "./dhcp";
export * from "./ethernet";
export * from "./icmp";
export * from "./ipv4";
export * from "./packets";
export * from "./udp";
