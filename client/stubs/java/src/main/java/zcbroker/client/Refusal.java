package zcbroker.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.Optional;
import zcbroker.v1.RefusalDetail;

/**
 * A broker's no, with its facts (proto/zcbroker/v1/errors.proto). Decide by {@code reason} or {@code code}, never by the
 * message.
 *
 * @param reason its name, for example {@code SERVICE_UNKNOWN}
 * @param code the status of the call
 * @param message for people
 * @param retryAfter after what time a retry can help; empty where none does
 * @param detail installed versions, evidence and the like
 */
public record Refusal(String reason, Status.Code code, String message, Optional<Duration> retryAfter,
    RefusalDetail detail) {

  /** The refusal in a status' details, where there is one. */
  static Optional<Refusal> of(Status status, Metadata trailers) {
    com.google.rpc.Status rich = StatusProto.fromStatusAndTrailers(status, trailers);
    return find(rich, ErrorInfo.class)
        .filter(info -> info.getDomain().equals("zcbroker"))
        .map(info -> new Refusal(info.getReason(), status.getCode(), rich.getMessage(),
            find(rich, RetryInfo.class).map(retry -> toJava(retry.getRetryDelay())),
            find(rich, RefusalDetail.class).orElse(RefusalDetail.getDefaultInstance())));
  }

  private static <T extends Message> Optional<T> find(com.google.rpc.Status rich, Class<T> type) {
    for (Any any : rich.getDetailsList()) {
      try {
        if (any.is(type)) {
          return Optional.of(any.unpack(type));
        }
      } catch (InvalidProtocolBufferException broken) {
        return Optional.empty();
      }
    }
    return Optional.empty();
  }

  private static Duration toJava(com.google.protobuf.Duration duration) {
    return Duration.ofSeconds(duration.getSeconds(), duration.getNanos());
  }
}
