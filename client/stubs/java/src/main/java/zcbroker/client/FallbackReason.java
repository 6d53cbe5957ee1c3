package zcbroker.client;

import java.util.Locale;

/** Why a client that asked for a broker connected directly instead. */
public enum FallbackReason {
  /** {@code RUNNING_PROCESS_FAKE_BACKEND} does not answer. */
  FAKE_BACKEND_DEAD,
  /** There is no broker socket, or no runtime directory. */
  BROKER_MISSING,
  /** There is a broker socket on which nobody listens. */
  BROKER_REFUSED,
  /** The socket could not be used. */
  BROKER_UNREACHABLE,
  /** The socket's other end belongs to another user. */
  BROKER_FOREIGN,
  /** The broker gave no sign of life within the contact budget. */
  BROKER_MUTE,
  /** It is alive, but gave no answer within the deadline. */
  BROKER_SLOW,
  /** The connection broke before an answer. */
  BROKER_CLOSED,
  /** The answer is not of the protocol. */
  BROKER_GARBAGE,
  /** An answer without a usable route, or of another version. */
  BROKER_WRONG_REPLY,
  /** The broker said no; see {@link BrokerException#refusal}. */
  BROKER_REFUSAL,
  /** The route's backend speaks none of the accepted wire lanes. */
  LANE_UNSUPPORTED,
  /** The backend of the route does not accept. */
  ROUTE_DEAD,
  /** The backend of the route belongs to another user. */
  ROUTE_FOREIGN;

  /** The name that zcbroker's own programs give it, for example {@code broker_mute}; never changes. */
  public String label() {
    return name().toLowerCase(Locale.ROOT);
  }
}
