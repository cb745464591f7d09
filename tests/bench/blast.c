/* Write one frame COUNT times into the tap that is open as descriptor FD: what a guest sends, as fast as it can.
 * The tun driver carries each frame through the bridge in the writer's context, so the time is that of the whole path.
 * Usage: blast FD COUNT < frame; prints nanoseconds. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char frame[65536];
    struct timespec start, end;
    if (argc != 3)
        return 2;
    int fd = atoi(argv[1]);
    long count = atol(argv[2]);
    ssize_t length = read(0, frame, sizeof frame);
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < count; i++)
        if (write(fd, frame, length) != length)
            return 1;
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%ld\n", (end.tv_sec - start.tv_sec) * 1000000000L + end.tv_nsec - start.tv_nsec);
    return 0;
}
