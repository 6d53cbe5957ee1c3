package zcbroker.client;

import java.util.Locale;

/** How the broker named an endpoint. */
public enum RouteSource {
  /** By a file; no broker was asked. */
  ROUTE_INFO,
  /** In answer to a negotiation. */
  NEGOTIATION;

  /** In lower case, as zcbroker's own programs spell it: {@code route_info}. */
  public String label() {
    return name().toLowerCase(Locale.ROOT);
  }
}
