package zcbroker.client;

import java.io.IOException;
import java.util.Optional;

/** A negotiation, or the way to the route it gave, failed. */
public final class BrokerException extends IOException {
  private static final long serialVersionUID = 1L;

  private final FallbackReason reason;
  private final transient Refusal refusal;

  BrokerException(FallbackReason reason, String message) {
    this(reason, message, null);
  }

  BrokerException(Refusal refusal) {
    this(FallbackReason.BROKER_REFUSAL, refusal.reason() + ": " + refusal.message(), refusal);
  }

  private BrokerException(FallbackReason reason, String message, Refusal refusal) {
    super(reason.label() + ": " + message);
    this.reason = reason;
    this.refusal = refusal;
  }

  /** The fallback it leads to. */
  public FallbackReason reason() {
    return reason;
  }

  /** Present with {@link FallbackReason#BROKER_REFUSAL}. */
  public Optional<Refusal> refusal() {
    return Optional.ofNullable(refusal);
  }
}
