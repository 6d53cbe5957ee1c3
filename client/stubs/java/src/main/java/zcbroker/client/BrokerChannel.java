package zcbroker.client;

import com.google.protobuf.ByteString;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.okhttp.OkHttpChannelBuilder;
import java.io.IOException;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.AsynchronousCloseException;
import java.nio.channels.SocketChannel;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicReference;
import javax.net.SocketFactory;
import running_process.broker.v1.BrokerV1;
import zcbroker.v1.BrokerGrpc;
import zcbroker.v1.NegotiateRequest;
import zcbroker.v1.NegotiateResponse;

/** Asking the broker of this user over gRPC. */
final class BrokerChannel {
  /** How long a broker may take for any sign of life. */
  private static final Duration CONTACT = Duration.ofMillis(500);

  private static final int ADMIN_PROTOCOL = 0xAD01;
  private static final byte FRAMING_VERSION = 1;

  private BrokerChannel() {}

  static NegotiateResponse negotiate(NegotiateRequest request, Deadline deadline) throws BrokerException {
    Path broker = findBroker();
    CompletableFuture<Void> begun = new CompletableFuture<>();
    ManagedChannel channel = open(broker, deadline.orSooner(CONTACT), begun);
    try {
      Negotiation negotiation = new Negotiation(channel, request, deadline);
      // A virtual machine that has just begun may take longer to ask than a
      // broker to answer.
      comesBy(begun, deadline);
      if (!negotiation.isHeardFrom(deadline.orSooner(CONTACT)) && isMute(broker, deadline)
          && !negotiation.isHeardFrom(Deadline.after(Duration.ZERO))) {
        throw new BrokerException(FallbackReason.BROKER_MUTE, "the broker at " + broker + " gives no sign of life");
      }
      NegotiateResponse response = negotiation.await(deadline);
      if (!response.getRoute().getVersion().equals(request.getWantedVersion())
          || !Sockets.isEndpoint(response.getRoute().getEndpoint())) {
        throw new BrokerException(FallbackReason.BROKER_WRONG_REPLY, "the answer has no route of this version");
      }
      return response;
    } finally {
      channel.shutdownNow();
    }
  }

  /** To the broker of this user; the caller shuts it down. */
  static ManagedChannel open() throws BrokerException {
    return open(findBroker(), Deadline.after(CONTACT), new CompletableFuture<>());
  }

  private static Path findBroker() throws BrokerException {
    Path broker;
    try (PrivateDir dir = RuntimeDir.open()) {
      broker = dir.path().resolve("broker.sock");
    } catch (IOException error) {
      throw unusable(error);
    }
    if (!Sockets.isEndpoint(broker.toString())) {
      throw new BrokerException(FallbackReason.BROKER_UNREACHABLE, broker + " is longer than sockets may be");
    }
    return broker;
  }

  /** Connects, and checks who listens before a byte is written. */
  private static SocketChannel dial(Path broker, Deadline contact) throws BrokerException {
    try {
      SocketChannel channel = Sockets.dial(broker, contact);
      if (Sockets.isOurs(channel)) {
        return channel;
      }
      channel.close();
    } catch (IOException error) {
      throw unusable(error);
    }
    throw new BrokerException(FallbackReason.BROKER_FOREIGN, broker + " belongs to another user");
  }

  /** {@code begun} is completed when something is about to be sent. */
  private static ManagedChannel open(Path broker, Deadline contact, CompletableFuture<Void> begun)
      throws BrokerException {
    return OkHttpChannelBuilder.forAddress("127.0.0.1", 1) // never used: the socket is there
        .overrideAuthority("localhost")
        .socketFactory(new OneSocket(dial(broker, contact), begun))
        .proxyDetector(address -> null)
        .disableServiceConfigLookUp()
        .disableRetry()
        .usePlaintext()
        .build();
  }

  /**
   * Whether nothing comes in answer to HEALTHZ on the framed lane either, which a broker answers however busy the
   * machine is. What comes does not matter: the call tells.
   */
  private static boolean isMute(Path broker, Deadline deadline) {
    ByteString body = BrokerV1.Frame.newBuilder()
        .setEnvelopeVersion(1)
        .setPayloadProtocol(ADMIN_PROTOCOL)
        .setRequestId(1)
        .setPayload(BrokerV1.AdminRequest.newBuilder().setVerb(BrokerV1.AdminVerb.ADMIN_VERB_HEALTHZ).build()
            .toByteString())
        .build()
        .toByteString();
    ByteBuffer frame = ByteBuffer.allocate(5 + body.size()).order(ByteOrder.LITTLE_ENDIAN)
        .put(FRAMING_VERSION).putInt(body.size()).put(body.asReadOnlyByteBuffer()).flip();
    Deadline contact = deadline.orSooner(CONTACT);
    try (SocketChannel channel = dial(broker, contact)) {
      CompletableFuture<Void> givingUp = CompletableFuture.runAsync(() -> Sockets.closeQuietly(channel),
          CompletableFuture.delayedExecutor(contact.remaining().toMillis(), TimeUnit.MILLISECONDS));
      channel.write(frame);
      channel.read(ByteBuffer.allocate(1));
      givingUp.cancel(false);
      return false;
    } catch (BrokerException error) {
      return error.reason() == FallbackReason.BROKER_MUTE;
    } catch (AsynchronousCloseException silence) {
      return true;
    } catch (IOException hungUp) {
      return false;
    }
  }

  private static boolean comesBy(CompletableFuture<Void> event, Deadline by) {
    try {
      event.get(by.remaining().toNanos(), TimeUnit.NANOSECONDS);
      return true;
    } catch (TimeoutException silence) {
      return false;
    } catch (ExecutionException impossible) {
      throw new AssertionError(impossible);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  private static BrokerException unusable(IOException error) {
    FallbackReason reason = FallbackReason.BROKER_UNREACHABLE;
    if (error instanceof NoSuchFileException) {
      reason = FallbackReason.BROKER_MISSING;
    } else if (error instanceof ConnectException) {
      reason = FallbackReason.BROKER_REFUSED;
    } else if (error instanceof SocketTimeoutException) {
      reason = FallbackReason.BROKER_MUTE;
    }
    return new BrokerException(reason, error.getMessage());
  }

  /** What a failed call means. */
  private static BrokerException failure(Status status, Metadata trailers) {
    return Refusal.of(status, trailers).map(BrokerException::new).orElseGet(() -> {
      FallbackReason reason = switch (status.getCode()) {
        case DEADLINE_EXCEEDED -> FallbackReason.BROKER_SLOW;
        // CANCELLED: a call that reaches a server in its last moment.
        case UNAVAILABLE, CANCELLED -> FallbackReason.BROKER_CLOSED;
        case OK, UNIMPLEMENTED -> FallbackReason.BROKER_WRONG_REPLY;
        default -> FallbackReason.BROKER_GARBAGE;
      };
      return new BrokerException(reason, status.getCode() + ": " + status.getDescription());
    });
  }

  /** One call, whose first sign of life is the initial metadata. */
  private static final class Negotiation extends ClientCall.Listener<NegotiateResponse> {
    private final CompletableFuture<Void> contact = new CompletableFuture<>();
    private final CompletableFuture<NegotiateResponse> outcome = new CompletableFuture<>();
    // Of the call's own thread.
    private NegotiateResponse answer;

    Negotiation(ManagedChannel channel, NegotiateRequest request, Deadline deadline) {
      ClientCall<NegotiateRequest, NegotiateResponse> call = channel.newCall(BrokerGrpc.getNegotiateMethod(),
          CallOptions.DEFAULT.withDeadlineAfter(deadline.remaining().toNanos(), TimeUnit.NANOSECONDS));
      call.start(this, new Metadata());
      call.request(1);
      call.sendMessage(request);
      call.halfClose();
    }

    @Override
    public void onHeaders(Metadata headers) {
      contact.complete(null);
    }

    @Override
    public void onMessage(NegotiateResponse message) {
      answer = message;
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      if (status.isOk() && answer != null) {
        outcome.complete(answer);
      } else {
        outcome.completeExceptionally(failure(status, trailers));
      }
      contact.complete(null);
    }

    boolean isHeardFrom(Deadline by) {
      return comesBy(contact, by);
    }

    NegotiateResponse await(Deadline by) throws BrokerException {
      try {
        return outcome.get(by.remaining().toNanos(), TimeUnit.NANOSECONDS);
      } catch (ExecutionException failed) {
        throw (BrokerException) failed.getCause();
      } catch (TimeoutException late) {
        throw new BrokerException(FallbackReason.BROKER_SLOW, "no answer in time");
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        throw new BrokerException(FallbackReason.BROKER_SLOW, "interrupted");
      }
    }
  }

  /** Hands out the connection whose owner was checked, and no other. */
  private static final class OneSocket extends SocketFactory {
    private final AtomicReference<SocketChannel> channel;
    private final CompletableFuture<Void> written;

    OneSocket(SocketChannel channel, CompletableFuture<Void> written) {
      this.channel = new AtomicReference<>(channel);
      this.written = written;
    }

    @Override
    public Socket createSocket(InetAddress host, int port) throws IOException {
      SocketChannel connected = channel.getAndSet(null);
      if (connected == null) {
        throw new IOException("the connection to the broker has ended; open another one");
      }
      return new ChannelSocket(connected, written);
    }

    @Override
    public Socket createSocket(String host, int port) {
      throw new UnsupportedOperationException();
    }

    @Override
    public Socket createSocket(String host, int port, InetAddress localHost, int localPort) {
      throw new UnsupportedOperationException();
    }

    @Override
    public Socket createSocket(InetAddress address, int port, InetAddress localAddress, int localPort) {
      throw new UnsupportedOperationException();
    }
  }
}
