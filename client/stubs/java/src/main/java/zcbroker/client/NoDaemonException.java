package zcbroker.client;

import java.io.IOException;
import java.nio.file.Path;
import java.util.Optional;

/** Nobody accepts at the direct endpoint. */
public final class NoDaemonException extends IOException {
  private static final long serialVersionUID = 1L;

  private final BrokerException fallback;

  NoDaemonException(Path endpoint, IOException cause, BrokerException fallback) {
    super("connect " + endpoint + ": " + cause.getMessage()
        + (fallback == null ? "" : " (after " + fallback.getMessage() + ")"), cause);
    this.fallback = fallback;
  }

  /** Why it was tried, where the environment asked for something else. */
  public Optional<BrokerException> fallback() {
    return Optional.ofNullable(fallback);
  }
}
