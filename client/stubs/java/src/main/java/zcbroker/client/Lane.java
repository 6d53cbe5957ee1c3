package zcbroker.client;

import java.util.Locale;

/** To whom a connection leads. */
public enum Lane {
  /** The endpoint that the caller gave. */
  DIRECT,
  /** The one that {@code RUNNING_PROCESS_FAKE_BACKEND} names. */
  FAKE_BACKEND,
  /** The one that the broker named. */
  BROKER;

  /** In lower case, as zcbroker's own programs spell it: {@code fake_backend}. */
  public String label() {
    return name().toLowerCase(Locale.ROOT);
  }
}
