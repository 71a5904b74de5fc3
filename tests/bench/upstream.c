/* The upstream of the benchmark: one epoll loop that answers from bytes made once, in OpenAI's or Anthropic's words.

       upstream [PORT]        listens on 127.0.0.1, and prints its port; without one ends with whoever started it

   The path tells the dialect, `"stream":true` in the body a stream, and the model's name the behaviour:

       bench                  a kilobyte; as a stream, three words
       bench-200              a stream of 200 words, each an event and an HTTP chunk of its own, in as few writes as fit
       bench-slow-5-1000      five words, a second apart; each is the time it was sent, `@<CLOCK_MONOTONIC in ns>@`
       bench-wait-50          answers after 50 ms
       bench-error-500        that status
       bench-break-3          three words of a stream, and hangs up

   Only heads that a well-behaved client sends are understood. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 4096, MOST = 64 << 20, EVENTS = 512, KEPT = 64 };
enum Dialect { OPENAI, ANTHROPIC };

struct bytes {
    char *at;
    size_t length, room;
};

struct plan {
    enum Dialect dialect;
    int stream, words, gap, wait, error, breaks; /* gap and wait in ms */
};

struct peer {
    unsigned generation; /* a timer of an earlier one on this descriptor is void */
    int open, closes, busy, writes;
    struct bytes heard, owed;
    size_t paid;
    struct plan plan;
    int said; /* words of a slow stream so far */
};

struct timer {
    uint64_t due;
    int fd;
    unsigned generation;
};

struct made {
    int dialect, words, breaks;
    struct bytes answer;
};

static int poll_fd;
static struct peer *peers;
static int peers_room;
static struct timer *timers;
static size_t timers_length, timers_room;
static struct made made[KEPT];
static int made_length;
static struct bytes whole[2];

static void *sure(void *memory)
{
    if (!memory) {
        perror("upstream");
        exit(1);
    }
    return memory;
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void add(struct bytes *to, const char *from, size_t length)
{
    if (to->length + length > to->room) {
        to->room = (to->length + length) * 2;
        to->at = sure(realloc(to->at, to->room));
    }
    memcpy(to->at + to->length, from, length);
    to->length += length;
}

__attribute__((format(printf, 2, 3))) static void addf(struct bytes *to, const char *form, ...)
{
    char line[4096];
    va_list values;
    va_start(values, form);
    int length = vsnprintf(line, sizeof line, form, values);
    va_end(values);
    add(to, line, (size_t)length);
}

/* what is said */

#define CHUNK "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\","
#define STREAM_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

__attribute__((format(printf, 2, 3))) static void event(struct bytes *to, const char *form, ...)
{
    char line[4096];
    va_list values;
    va_start(values, form);
    int length = vsnprintf(line, sizeof line, form, values);
    va_end(values);
    addf(to, "%x\r\n", length);
    add(to, line, (size_t)length);
    add(to, "\r\n", 2);
}

static void begin(struct bytes *to, enum Dialect dialect)
{
    add(to, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    if (dialect == OPENAI) {
        event(to, "data: " CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                  "\"logprobs\":null,\"finish_reason\":null}]}\n\n");
        return;
    }
    event(to, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_bench\",\"type\":\"message\","
              "\"role\":\"assistant\",\"model\":\"bench\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"
              "\"usage\":{\"input_tokens\":200,\"output_tokens\":1}}}\n\n");
    event(to, "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
              "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n");
}

static void word(struct bytes *to, enum Dialect dialect, const char *text)
{
    if (dialect == OPENAI)
        event(to, "data: " CHUNK "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,"
                  "\"finish_reason\":null}]}\n\n", text);
    else
        event(to, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
                  "\"delta\":{\"type\":\"text_delta\",\"text\":\"%s\"}}\n\n", text);
}

static void end(struct bytes *to, enum Dialect dialect, int words)
{
    if (dialect == OPENAI) {
        event(to, "data: " CHUNK "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n");
        event(to, "data: " CHUNK "\"choices\":[],\"usage\":{\"prompt_tokens\":200,\"completion_tokens\":%d,"
                  "\"total_tokens\":%d}}\n\n", words, 200 + words);
        event(to, "data: [DONE]\n\n");
    } else {
        event(to, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n");
        event(to, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\","
                  "\"stop_sequence\":null},\"usage\":{\"output_tokens\":%d}}\n\n", words);
        event(to, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    }
    add(to, "0\r\n\r\n", 5);
}

static void json(struct bytes *to, const char *status, const char *body)
{
    addf(to, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", status, strlen(body));
    add(to, body, strlen(body));
}

static void make_whole(void)
{
    char text[1024] = "", body[2048];
    for (int at = 0; at < 150; at++)
        strcat(text, "word ");
    snprintf(body, sizeof body,
             "{\"id\":\"chatcmpl-bench\",\"created\":1700000000,\"model\":\"bench\",\"object\":\"chat.completion\",\"choices\":"
             "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null},\"logprobs\":null,"
             "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":200,\"completion_tokens\":200,\"total_tokens\":400}}",
             text);
    json(&whole[OPENAI], "200 OK", body);
    snprintf(body, sizeof body,
             "{\"id\":\"msg_bench\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"bench\",\"content\":"
             "[{\"type\":\"text\",\"text\":\"%s\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,"
             "\"usage\":{\"input_tokens\":200,\"output_tokens\":200}}",
             text);
    json(&whole[ANTHROPIC], "200 OK", body);
}

static const struct bytes *stream(const struct plan *plan)
{
    for (int at = 0; at < made_length; at++)
        if (made[at].dialect == (int)plan->dialect && made[at].words == plan->words && made[at].breaks == plan->breaks)
            return &made[at].answer;
    struct made *new = &made[made_length < KEPT ? made_length++ : KEPT - 1];
    new->answer.length = 0;
    new->dialect = plan->dialect;
    new->words = plan->words;
    new->breaks = plan->breaks;
    begin(&new->answer, plan->dialect);
    for (int at = 0; at < plan->words; at++)
        word(&new->answer, plan->dialect, "word ");
    if (!plan->breaks)
        end(&new->answer, plan->dialect, plan->words);
    return &new->answer;
}

/* timers: a heap, the next one first */

static int earlier(size_t a, size_t b)
{
    return timers[a].due < timers[b].due;
}

static void swap(size_t a, size_t b)
{
    struct timer kept = timers[a];
    timers[a] = timers[b];
    timers[b] = kept;
}

static void wake(int fd, uint64_t due)
{
    if (timers_length == timers_room) {
        timers_room = timers_room ? timers_room * 2 : 1024;
        timers = sure(realloc(timers, timers_room * sizeof *timers));
    }
    size_t at = timers_length++;
    timers[at] = (struct timer){due, fd, peers[fd].generation};
    for (; at && earlier(at, (at - 1) / 2); at = (at - 1) / 2)
        swap(at, (at - 1) / 2);
}

static struct timer next_timer(void)
{
    struct timer first = timers[0];
    timers[0] = timers[--timers_length];
    for (size_t at = 0, child; (child = 2 * at + 1) < timers_length; at = child) {
        if (child + 1 < timers_length && earlier(child + 1, child))
            child++;
        if (!earlier(child, at))
            break;
        swap(at, child);
    }
    return first;
}

/* connections */

static void hang_up(int fd)
{
    struct peer *peer = &peers[fd];
    free(peer->heard.at);
    free(peer->owed.at);
    *peer = (struct peer){.generation = peer->generation + 1};
    close(fd);
}

static void watch(int fd, int writes)
{
    struct epoll_event event = {.events = EPOLLIN | (writes ? EPOLLOUT : 0), .data.fd = fd};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, fd, &event);
    peers[fd].writes = writes;
}

/* Send what is owed. False when the peer has left, or was to be left. */
static int pay(int fd)
{
    struct peer *peer = &peers[fd];
    while (peer->paid < peer->owed.length) {
        ssize_t sent = send(fd, peer->owed.at + peer->paid, peer->owed.length - peer->paid, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            if (!peer->writes)
                watch(fd, 1);
            return 1;
        }
        if (sent <= 0)
            return 0;
        peer->paid += (size_t)sent;
    }
    peer->paid = peer->owed.length = 0;
    if (peer->writes)
        watch(fd, 0);
    return !peer->closes || peer->busy;
}

/* Send bytes that live on, and keep a copy of what did not go only. */
static int give(int fd, const struct bytes *answer)
{
    struct peer *peer = &peers[fd];
    ssize_t sent = 0;
    if (!peer->owed.length) {
        sent = send(fd, answer->at, answer->length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return 0;
        if (sent < 0)
            sent = 0;
    }
    add(&peer->owed, answer->at + sent, answer->length - (size_t)sent);
    return pay(fd);
}

static int refuse(int fd, int status, enum Dialect dialect)
{
    char line[64], body[256];
    struct bytes answer = {0};
    snprintf(line, sizeof line, "%d Bench", status);
    snprintf(body, sizeof body,
             dialect == OPENAI ? "{\"error\":{\"message\":\"as you wish\",\"type\":\"bench_error\",\"param\":null,\"code\":null}}"
                               : "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"as you wish\"}}");
    json(&answer, line, body);
    int stays = give(fd, &answer);
    free(answer.at);
    return stays;
}

/* Give the whole of an answer that is not slow. */
static int answer(int fd)
{
    struct peer *peer = &peers[fd];
    peer->busy = 0;
    if (peer->plan.error)
        return refuse(fd, peer->plan.error, peer->plan.dialect);
    if (!peer->plan.stream)
        return give(fd, &whole[peer->plan.dialect]);
    peer->closes |= peer->plan.breaks;
    return give(fd, stream(&peer->plan));
}

/* Give the next word of a slow stream. */
static int speak(int fd)
{
    struct peer *peer = &peers[fd];
    struct bytes said = {0};
    char text[64];
    snprintf(text, sizeof text, "@%020llu@", (unsigned long long)now());
    word(&said, peer->plan.dialect, text);
    if (++peer->said == peer->plan.words) {
        end(&said, peer->plan.dialect, peer->said);
        peer->busy = 0;
    } else
        wake(fd, now() + (uint64_t)peer->plan.gap * 1000000u);
    int stays = give(fd, &said);
    free(said.at);
    return stays;
}

static int start(int fd)
{
    struct peer *peer = &peers[fd];
    peer->said = 0;
    peer->busy = 1;
    if (peer->plan.wait) {
        wake(fd, now() + (uint64_t)peer->plan.wait * 1000000u);
        return 1;
    }
    if (!peer->plan.stream || !peer->plan.gap)
        return answer(fd);
    struct bytes said = {0};
    begin(&said, peer->plan.dialect);
    int stays = give(fd, &said);
    free(said.at);
    return stays && speak(fd);
}

/* what is asked */

static const char *field(const char *head, size_t length, const char *name)
{
    size_t wide = strlen(name);
    for (const char *at = head; (at = memmem(at, length - (size_t)(at - head), "\r\n", 2));) {
        at += 2;
        if (length - (size_t)(at - head) > wide && !strncasecmp(at, name, wide) && at[wide] == ':') {
            at += wide + 1;
            while (*at == ' ')
                at++;
            return at;
        }
    }
    return NULL;
}

static struct plan plan_of(enum Dialect dialect, const char *body, size_t length)
{
    struct plan plan = {.dialect = dialect, .words = 3};
    plan.stream = memmem(body, length, "\"stream\":true", 13) || memmem(body, length, "\"stream\": true", 14);
    const char *model = memmem(body, length, "\"bench-", 7);
    if (!model)
        return plan;
    char name[64] = "";
    size_t most = length - (size_t)(model + 7 - body);
    memcpy(name, model + 7, most < sizeof name - 1 ? most : sizeof name - 1);
    if (sscanf(name, "slow-%d-%d", &plan.words, &plan.gap) || sscanf(name, "wait-%d", &plan.wait) ||
        sscanf(name, "error-%d", &plan.error))
        return plan;
    if (sscanf(name, "break-%d", &plan.words))
        plan.breaks = 1;
    else
        sscanf(name, "%d", &plan.words);
    return plan;
}

static int respond(int fd, const char *head, size_t head_length, const char *body, size_t length)
{
    static const char openai[] = "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1700000000,"
                                 "\"owned_by\":\"bench\"}]}";
    static const char anthropic[] = "{\"data\":[{\"type\":\"model\",\"id\":\"bench\",\"display_name\":\"Bench\","
                                    "\"created_at\":\"2024-01-01T00:00:00Z\"}],\"has_more\":false,\"first_id\":\"bench\","
                                    "\"last_id\":\"bench\"}";
    const char *line = memchr(head, '\r', head_length), *path = memchr(head, ' ', head_length);
    size_t wide = 0;
    while (path && path + 1 + wide < line && path[1 + wide] != ' ' && path[1 + wide] != '?')
        wide++;
    const char *last = path ? path + 1 + wide : head;
#define ENDS(with) (wide >= sizeof with - 1 && !memcmp(last - (sizeof with - 1), with, sizeof with - 1))
    struct peer *peer = &peers[fd];
    const char *connection = field(head, head_length, "connection");
    peer->closes = (connection && !strncasecmp(connection, "close", 5)) || (line && line[-1] == '0');
    if (ENDS("/chat/completions") || ENDS("/messages")) {
        peer->plan = plan_of(ENDS("/messages") ? ANTHROPIC : OPENAI, body, length);
        return start(fd);
    }
    struct bytes said = {0};
    if (ENDS("/models"))
        json(&said, "200 OK", field(head, head_length, "anthropic-version") ? anthropic : openai);
    else
        json(&said, "404 Not Found", "{\"error\":{\"message\":\"no such path\",\"type\":\"not_found_error\"}}");
    int stays = give(fd, &said);
    free(said.at);
    return stays;
}

/* Give the length of a chunked body, or -1 when it is not all there. */
static ssize_t chunked(const char *body, size_t length)
{
    size_t at = 0;
    for (;;) {
        const char *line = memmem(body + at, length - at, "\r\n", 2);
        if (!line)
            return -1;
        size_t size = strtoul(body + at, NULL, 16);
        at = (size_t)(line - body) + 2 + size + 2;
        if (at > length)
            return -1;
        if (!size)
            return (ssize_t)at;
    }
}

/* Answer what was heard, one request at a time. False when the connection is over. */
static int listen_to(int fd)
{
    struct peer *peer = &peers[fd];
    while (!peer->busy && peer->heard.length) {
        const char *head = peer->heard.at, *blank = memmem(head, peer->heard.length, "\r\n\r\n", 4);
        if (!blank)
            return peer->heard.length < MOST;
        size_t head_length = (size_t)(blank - head) + 4;
        const char *told = field(head, head_length, "content-length");
        const char *coding = field(head, head_length, "transfer-encoding");
        ssize_t length = coding ? chunked(head + head_length, peer->heard.length - head_length) : told ? atol(told) : 0;
        if (length < 0 || peer->heard.length < head_length + (size_t)length)
            return peer->heard.length < MOST;
        if (!respond(fd, head, head_length, head + head_length, (size_t)length))
            return 0;
        size_t taken = head_length + (size_t)length;
        peer->heard.length -= taken;
        memmove(peer->heard.at, peer->heard.at + taken, peer->heard.length);
    }
    return 1;
}

static int hear(int fd)
{
    struct peer *peer = &peers[fd];
    if (peer->heard.room - peer->heard.length < ROOM) {
        peer->heard.room = (peer->heard.room + ROOM) * 2;
        peer->heard.at = sure(realloc(peer->heard.at, peer->heard.room));
    }
    ssize_t got = recv(fd, peer->heard.at + peer->heard.length, peer->heard.room - peer->heard.length, 0);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    peer->heard.length += (size_t)got;
    return got && listen_to(fd);
}

static void take_in(int listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= peers_room) {
            int room = (fd + 1) * 2;
            peers = sure(realloc(peers, (size_t)room * sizeof *peers));
            memset(peers + peers_room, 0, (size_t)(room - peers_room) * sizeof *peers);
            peers_room = room;
        }
        peers[fd].open = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static void ring(void)
{
    uint64_t time = now();
    while (timers_length && timers[0].due <= time) {
        struct timer timer = next_timer();
        struct peer *peer = &peers[timer.fd];
        if (!peer->open || peer->generation != timer.generation)
            continue;
        int stays = peer->plan.gap && peer->plan.stream ? speak(timer.fd) : answer(timer.fd);
        if (!stays || !listen_to(timer.fd))
            hang_up(timer.fd);
    }
}

static int patience(void)
{
    if (!timers_length)
        return -1;
    uint64_t time = now();
    return timers[0].due <= time ? 0 : (int)((timers[0].due - time + 999999u) / 1000000u);
}

static int listen_on(int port)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("upstream");
        exit(1);
    }
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int count, char **words)
{
    struct rlimit files;
    struct epoll_event events[EVENTS];
    if (count == 1)
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* whoever names a port stays with it */
    prctl(PR_SET_TIMERSLACK, 1000ul);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    make_whole();
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(count > 1 ? atoi(words[1]) : 0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int found = epoll_wait(poll_fd, events, EVENTS, patience());
        for (int at = 0; at < found; at++) {
            int fd = events[at].data.fd;
            if (fd == listener)
                take_in(listener);
            else if (!(events[at].events & EPOLLOUT ? pay(fd) : 1) ||
                     (events[at].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !hear(fd)))
                hang_up(fd);
        }
        ring();
    }
}
