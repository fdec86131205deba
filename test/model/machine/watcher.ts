// Who wants to know of the guest's accesses to a word shared with a device: the audit of a queue.
// Registered with Vcpu.watch.

export interface Watcher {
  /** The guest has read the word at this physical address (the value only of 16 and 32 bits). */
  read(physical: number, value: number): void;
  /** The guest has written it. */
  write(physical: number, value: number): void;
}
