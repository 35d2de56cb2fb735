/* The yardstick: what a C client does on the same broker.
 *
 *   yardstick publish HOST PORT USER VHOST QUEUE COUNT SIZE WINDOW
 *   yardstick consume HOST PORT USER VHOST QUEUE COUNT PREFETCH ACK_EVERY
 *
 * The password is in YARDSTICK_PASSWORD. Publishes persistent messages with confirms, at most WINDOW of them in flight;
 * or consumes, with one acknowledgement for every ACK_EVERY messages. Prints the seconds it took.
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check(int failed, const char *what) {
  if (failed) {
    fprintf(stderr, "yardstick: %s failed\n", what);
    exit(1);
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void replied(amqp_connection_state_t c, const char *what) {
  check(amqp_get_rpc_reply(c).reply_type != AMQP_RESPONSE_NORMAL, what);
}

static void publish(amqp_connection_state_t c, amqp_bytes_t queue, long count, long size, long window) {
  amqp_basic_properties_t properties;
  amqp_bytes_t body = amqp_bytes_malloc((size_t)size);
  char *confirmed = calloc((size_t)count + 2, 1);
  long lowest = 1, sent = 0, done = 0;

  memset(body.bytes, 'x', (size_t)size);
  memset(&properties, 0, sizeof properties);
  properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG;
  properties.delivery_mode = 2;
  amqp_confirm_select(c, 1);
  replied(c, "confirm.select");
  while (done < count) {
    while (sent < count && sent - done < window) {
      check(amqp_basic_publish(c, 1, amqp_empty_bytes, queue, 1, 0, &properties, body), "publish");
      sent++;
    }
    /* Until half of the window is free, so that what follows goes out in one go. */
    while (sent - done > (sent < count ? window / 2 : 0)) {
      amqp_frame_t frame;
      amqp_basic_ack_t *ack;
      long tag;
      check(amqp_simple_wait_frame(c, &frame) != AMQP_STATUS_OK, "waiting for a confirm");
      check(frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD, "confirm");
      ack = frame.payload.method.decoded;
      tag = (long)ack->delivery_tag;
      if (ack->multiple) {
        for (; lowest <= tag; lowest++) {
          done += !confirmed[lowest];
          confirmed[lowest] = 1;
        }
      } else {
        done += !confirmed[tag];
        confirmed[tag] = 1;
      }
      amqp_maybe_release_buffers(c);
    }
  }
  free(confirmed);
  amqp_bytes_free(body);
}

static void consume(amqp_connection_state_t c, amqp_bytes_t queue, long count, long prefetch, long every) {
  long done = 0;
  amqp_basic_qos(c, 1, 0, (uint16_t)prefetch, 0);
  replied(c, "basic.qos");
  amqp_basic_consume(c, 1, queue, amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
  replied(c, "basic.consume");
  while (done < count) {
    amqp_envelope_t envelope;
    amqp_maybe_release_buffers(c);
    check(amqp_consume_message(c, &envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL, "consuming");
    done++;
    if (done % every == 0 || done == count) {
      check(amqp_basic_ack(c, 1, envelope.delivery_tag, 1), "basic.ack");
    }
    amqp_destroy_envelope(&envelope);
  }
}

int main(int argc, char **argv) {
  amqp_connection_state_t c;
  amqp_socket_t *s;
  amqp_bytes_t queue;
  const char *password = getenv("YARDSTICK_PASSWORD");
  long numbers[3];
  double start;
  int i;

  check(argc != 10 || password == NULL, "reading the arguments");
  for (i = 0; i < 3; i++) {
    numbers[i] = atol(argv[7 + i]);
    check(numbers[i] < 1, "reading a number");
  }
  c = amqp_new_connection();
  s = amqp_tcp_socket_new(c);
  check(s == NULL || amqp_socket_open(s, argv[2], atoi(argv[3])), "connecting");
  check(amqp_login(c, argv[5], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, argv[4], password).reply_type !=
            AMQP_RESPONSE_NORMAL, "logging in");
  amqp_channel_open(c, 1);
  replied(c, "channel.open");
  queue = amqp_cstring_bytes(argv[6]);
  start = now();
  if (strcmp(argv[1], "publish") == 0) {
    publish(c, queue, numbers[0], numbers[1], numbers[2]);
  } else {
    consume(c, queue, numbers[0], numbers[1], numbers[2]);
  }
  printf("%.9f\n", now() - start);
  amqp_channel_close(c, 1, AMQP_REPLY_SUCCESS);
  amqp_connection_close(c, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(c);
  return 0;
}
