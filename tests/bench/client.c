/* The client of the benchmark: keeps connections busy, one request after the other on each.

       client PORT CONNECTIONS SECONDS WARM_UP SPREAD ONCE < request

   The request goes out again and again; what comes in the first WARM_UP seconds is not counted. The first requests of
   the connections are spread over SPREAD seconds. With ONCE (1) each connection asks once, and SECONDS is how long all
   of them may take. Prints JSON: seconds that counted, microseconds of each answer, of each first word and of each
   delay, words, answers and words with those of the warm-up, connections made again, and what went wrong, how often.

   A word is `word ` or `@<CLOCK_MONOTONIC in ns>@` in a body; a delay is what passed since that time. An answer is whole
   when its length says so, or its last chunk, and a stream also has to say `[DONE]` or `message_stop`. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
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

enum { READ = 262144, HEAD = 16384, TAIL = 32, SAID = 96, EVENTS = 512, REASONS = 32, REASON = 160 };
enum State { IN_HEAD, IN_LENGTH, IN_CHUNK, IN_SIZE, TO_THE_END };

struct numbers {
    uint32_t *at;
    size_t length, room;
};

struct connection {
    int fd, used, watched, closes, streams, ended, status, over;
    enum State state;
    char head[HEAD]; /* then the size of a chunk */
    size_t head_length;
    uint64_t left; /* of the body, or of the chunk with its CRLF */
    int last;      /* chunk */
    char tail[TAIL]; /* the last of a stream; the first `counted` bytes of it were looked through for words */
    size_t tail_length, counted, sent;
    char said[SAID]; /* by an answer that refuses */
    size_t said_length;
    uint64_t asked, first;
};

static int port, connections, once, poll_fd, open_ones;
static uint64_t counts_from, ends, begun;
static char *request;
static size_t request_length;
static struct connection *all;
static struct numbers times, firsts, delays;
static uint64_t words, all_words, all_answers, made_again;
static struct {
    char text[REASON];
    int times;
} wrong[REASONS];

static void *sure(void *memory)
{
    if (!memory) {
        perror("client");
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

static void note(struct numbers *numbers, uint64_t nanoseconds)
{
    if (numbers->length == numbers->room) {
        numbers->room = numbers->room ? numbers->room * 2 : 65536;
        numbers->at = sure(realloc(numbers->at, numbers->room * sizeof *numbers->at));
    }
    numbers->at[numbers->length++] = (uint32_t)(nanoseconds / 1000 < UINT32_MAX ? nanoseconds / 1000 : UINT32_MAX);
}

static void blame(const char *reason)
{
    int at = 0;
    while (at < REASONS - 1 && wrong[at].times && strncmp(wrong[at].text, reason, REASON - 1))
        at++;
    snprintf(wrong[at].text, REASON, "%s", reason);
    wrong[at].times++;
}

/* connections */

static void leave(struct connection *one)
{
    close(one->fd);
    one->fd = -1;
    one->over = 1;
    open_ones--;
}

static void reach(struct connection *one)
{
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    one->used = 0;
    one->watched = 1;
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = one};
    if (one->fd < 0 || (connect(one->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) ||
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, one->fd, &event)) {
        blame(strerror(errno));
        leave(one);
    }
}

static void reach_again(struct connection *one)
{
    close(one->fd);
    made_again++;
    reach(one);
}

/* Send what is left of the request. */
static void speak(struct connection *one)
{
    ssize_t sent = send(one->fd, request + one->sent, request_length - one->sent, MSG_NOSIGNAL);
    if (sent > 0)
        one->sent += (size_t)sent;
    if (sent < 0 && errno != EAGAIN && errno != ENOTCONN)
        return; /* what is wrong is read */
    int waits = one->sent < request_length;
    if (waits == one->watched)
        return;
    struct epoll_event event = {.events = EPOLLIN | (waits ? EPOLLOUT : 0), .data.ptr = one};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, one->fd, &event);
    one->watched = waits;
}

static void forget(struct connection *one)
{
    one->state = IN_HEAD;
    one->head_length = one->tail_length = one->counted = one->said_length = one->sent = 0;
    one->left = one->first = 0;
    one->last = one->closes = one->streams = one->ended = one->status = 0;
    one->asked = now();
}

static void ask(struct connection *one)
{
    forget(one);
    if (one->fd < 0)
        reach(one);
    else
        speak(one);
}

static void answered(struct connection *one, uint64_t time)
{
    all_answers++;
    if (one->status != 200) {
        char reason[REASON];
        snprintf(reason, sizeof reason, "%d: %.*s", one->status, (int)one->said_length, one->said);
        blame(reason);
    } else if (one->streams && !one->ended)
        blame("a stream is not whole");
    else if (time >= counts_from) {
        note(&times, time - one->asked);
        if (one->first)
            note(&firsts, one->first - one->asked);
    }
    one->used = 1;
    if (once) {
        leave(one);
        return;
    }
    if (one->closes) {
        close(one->fd);
        one->fd = -1;
        made_again++;
    }
    ask(one);
}

/* bodies */

/* Count the words; gives how many bytes at the end may be the beginning of one. */
static size_t count_words(struct connection *one, const char *data, size_t length, uint64_t time)
{
    const char *end = data + length;
    for (const char *at = data; at < end; at++) {
        size_t left = (size_t)(end - at);
        if (*at == '@') {
            size_t digits = 1;
            while (digits < left && digits < 21 && at[digits] >= '0' && at[digits] <= '9')
                digits++;
            if (digits == left)
                return left;
            if (digits < 21 || at[21] != '@')
                continue;
            uint64_t sent = strtoull(at + 1, NULL, 10);
            if (time >= counts_from)
                note(&delays, time > sent ? time - sent : 0);
            at += 21;
        } else if (*at == 'w') {
            if (memcmp(at, "word ", left < 5 ? left : 5))
                continue;
            if (left < 5)
                return left;
            at += 4;
        } else {
            const char *word = memchr(at, 'w', left), *mark = memchr(at, '@', (size_t)((word ? word : end) - at));
            at = (mark ? mark : word ? word : end) - 1;
            continue;
        }
        if (!one->first)
            one->first = time;
        words += time >= counts_from;
        all_words++;
    }
    return 0;
}

/* Look through a piece of a body, with the end of the piece before. */
static void look(struct connection *one, const char *data, size_t length, uint64_t time)
{
    static char both[READ + TAIL];
    if (one->status != 200) {
        size_t room = SAID - one->said_length, taken = length < room ? length : room;
        memcpy(one->said + one->said_length, data, taken);
        one->said_length += taken;
    }
    if (!one->streams)
        return;
    memcpy(both, one->tail, one->tail_length);
    memcpy(both + one->tail_length, data, length);
    length += one->tail_length;
    one->ended |= memmem(both, length, "[DONE]", 6) || memmem(both, length, "message_stop", 12);
    size_t open = count_words(one, both + one->counted, length - one->counted, time), kept = length < 11 ? length : 11;
    kept = open > kept ? open : kept;
    memcpy(one->tail, both + length - kept, kept);
    one->tail_length = kept;
    one->counted = kept - open;
}

static const char *field(const char *head, const char *name)
{
    const char *found = strcasestr(head, name);
    if (!found)
        return NULL;
    found += strlen(name);
    while (*found == ' ')
        found++;
    return found;
}

/* Read the head, which ends with an empty line and a zero. */
static void begin(struct connection *one)
{
    const char *length = field(one->head, "\r\ncontent-length:"), *coding = field(one->head, "\r\ntransfer-encoding:");
    const char *connection = field(one->head, "\r\nconnection:"), *type = field(one->head, "\r\ncontent-type:");
    one->status = atoi(one->head + 9);
    one->closes = (connection && !strncasecmp(connection, "close", 5)) || !strncmp(one->head, "HTTP/1.0", 8);
    one->streams = type && !strncasecmp(type, "text/event-stream", 17);
    one->state = coding ? IN_SIZE : length ? IN_LENGTH : TO_THE_END;
    one->left = length ? strtoull(length, NULL, 10) : 0;
    one->head_length = 0;
}

/* Take in bytes of the body; gives how many, and says in `whole` whether that was all. */
static size_t hear_body(struct connection *one, const char *data, size_t length, uint64_t time, int *whole)
{
    size_t taken = length;
    if (one->state == TO_THE_END) {
        look(one, data, length, time);
        return length;
    }
    if (one->state == IN_SIZE) {
        for (taken = 0; taken < length;) {
            one->head[one->head_length++] = data[taken++];
            if (one->head[one->head_length - 1] == '\n' || one->head_length == 64)
                break;
        }
        if (!one->head_length || one->head[one->head_length - 1] != '\n')
            return taken;
        one->head[one->head_length] = 0;
        one->head_length = 0;
        one->left = strtoull(one->head, NULL, 16) + 2;
        one->last = one->left == 2;
        one->state = IN_CHUNK;
        return taken;
    }
    if (one->left < taken)
        taken = (size_t)one->left;
    size_t marks = one->state == IN_CHUNK ? 2 : 0;
    size_t payload = one->left > marks ? (size_t)(one->left - marks) : 0;
    if (payload)
        look(one, data, taken < payload ? taken : payload, time);
    one->left -= taken;
    if (!one->left) {
        *whole = one->state == IN_LENGTH || one->last;
        one->state = one->state == IN_CHUNK ? IN_SIZE : one->state;
    }
    return taken;
}

/* Take in what came. */
static void hear_all(struct connection *one, const char *data, size_t length, uint64_t time)
{
    while (length) {
        if (one->state == IN_HEAD) {
            size_t before = one->head_length, room = HEAD - 1 - before, taken = length < room ? length : room;
            memcpy(one->head + before, data, taken);
            one->head[before + taken] = 0;
            const char *end = memmem(one->head, before + taken, "\r\n\r\n", 4);
            one->head_length += taken;
            if (!end) {
                if (one->head_length == HEAD - 1) {
                    blame("the head is too long");
                    leave(one);
                }
                return;
            }
            taken = (size_t)(end + 4 - one->head) - before;
            one->head[before + taken] = 0;
            data += taken;
            length -= taken;
            begin(one);
            if (one->state == IN_LENGTH && !one->left) {
                answered(one, time);
                return;
            }
            continue;
        }
        int whole = 0;
        size_t taken = hear_body(one, data, length, time, &whole);
        data += taken;
        length -= taken;
        if (whole) {
            answered(one, time);
            return;
        }
    }
}

static void hear(struct connection *one)
{
    static char data[READ];
    ssize_t got = recv(one->fd, data, sizeof data, 0);
    if (got > 0) {
        hear_all(one, data, (size_t)got, now());
        return;
    }
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    int nothing = one->state == IN_HEAD && !one->head_length;
    if (!got && one->state == TO_THE_END)
        answered(one, now());
    else if (nothing && one->used) { /* a kept connection may be closed whenever nothing is under way */
        one->sent = 0;
        reach_again(one);
    } else {
        blame(got ? strerror(errno) : "the answer broke off");
        if (once)
            leave(one);
        else {
            forget(one);
            reach_again(one);
        }
    }
}

/* the report */

static void tell(const char *name, const struct numbers *numbers)
{
    printf("\"%s\": [", name);
    for (size_t at = 0; at < numbers->length; at++)
        printf(at ? ",%u" : "%u", numbers->at[at]);
    printf("], ");
}

static void tell_wrong(void)
{
    printf("\"wrong\": {");
    for (int at = 0; at < REASONS && wrong[at].times; at++) {
        printf("%s\"", at ? ", " : "");
        for (const char *letter = wrong[at].text; *letter; letter++)
            putchar(*letter < ' ' || *letter == '"' || *letter == '\\' || *letter & 0x80 ? ' ' : *letter);
        printf("\": %d", wrong[at].times);
    }
    printf("}}\n");
}

static void read_request(void)
{
    request = sure(malloc(1 << 20));
    request_length = fread(request, 1, 1 << 20, stdin);
}

static void run(uint64_t spread)
{
    struct epoll_event events[EVENTS];
    int started = 0;
    uint64_t time = now();
    while (time < ends && open_ones) {
        while (started < connections && begun + spread * (uint64_t)started / (uint64_t)connections <= time)
            ask(&all[started++]);
        int found = epoll_wait(poll_fd, events, EVENTS, started < connections ? 1 : 100);
        for (int at = 0; at < found; at++) {
            struct connection *one = events[at].data.ptr;
            if (one->fd >= 0 && events[at].events & EPOLLOUT && !(events[at].events & (EPOLLERR | EPOLLHUP)))
                speak(one);
            if (one->fd >= 0 && events[at].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                hear(one);
        }
        time = now();
    }
    ends = time;
}

int main(int count, char **arguments)
{
    struct rlimit files;
    if (count != 7) {
        fputs("client PORT CONNECTIONS SECONDS WARM_UP SPREAD ONCE < request\n", stderr);
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    port = atoi(arguments[1]);
    connections = open_ones = atoi(arguments[2]);
    once = atoi(arguments[6]);
    read_request();
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    all = sure(calloc((size_t)connections, sizeof *all));
    for (int at = 0; at < connections; at++)
        all[at].fd = -1;
    begun = now();
    counts_from = begun + (uint64_t)(atof(arguments[4]) * 1e9);
    ends = counts_from + (uint64_t)(atof(arguments[3]) * 1e9);
    run((uint64_t)(atof(arguments[5]) * 1e9));
    for (int at = 0; once && at < connections; at++)
        if (!all[at].over)
            blame("not over in time");
    printf("{\"elapsed\": %.6f, ", ends > counts_from ? (double)(ends - counts_from) / 1e9 : 0.0);
    tell("times", &times);
    tell("firsts", &firsts);
    tell("delays", &delays);
    printf("\"words\": %llu, \"all_words\": %llu, \"all_answers\": %llu, \"made_again\": %llu, ", (unsigned long long)words,
           (unsigned long long)all_words, (unsigned long long)all_answers, (unsigned long long)made_again);
    tell_wrong();
    return 0;
}
