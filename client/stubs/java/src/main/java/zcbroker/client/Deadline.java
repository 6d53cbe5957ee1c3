package zcbroker.client;

import java.time.Duration;

/** A moment on the monotonic clock. */
record Deadline(long nanoTime) {
  static Deadline after(Duration duration) {
    return new Deadline(System.nanoTime() + duration.toNanos());
  }

  /** Zero once it has passed. */
  Duration remaining() {
    return Duration.ofNanos(Math.max(0, nanoTime - System.nanoTime()));
  }

  Deadline orSooner(Duration duration) {
    return remaining().compareTo(duration) < 0 ? this : after(duration);
  }
}
