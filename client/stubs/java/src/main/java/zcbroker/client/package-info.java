/**
 * Reaches the background daemon of a compiler cache, or any service that zcbroker looks after: through the broker where
 * the environment asks for it, else directly. {@link zcbroker.client.Zcbroker} has the calls.
 */
package zcbroker.client;
