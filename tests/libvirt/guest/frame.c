/*
 * frame send DEV HEX   put the bytes of HEX on DEV's wire as one Ethernet frame, whatever they claim
 * frame listen DEV     print every frame that arrives at DEV, one line of hex each
 *
 * Linked statically into the test guest: busybox has no tool for frames that are not its own.
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned char frame[65536];

int main(int argc, char **argv)
{
    int sending = argc == 4 && !strcmp(argv[1], "send");
    int listening = argc == 3 && !strcmp(argv[1], "listen");
    if (!sending && !listening) {
        fprintf(stderr, "usage: frame send DEV HEX | frame listen DEV\n");
        return 2;
    }
    /* A sender takes no protocol, so nothing it never reads is queued for it. */
    int wire = socket(AF_PACKET, SOCK_RAW, listening ? htons(ETH_P_ALL) : 0);
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_protocol = listening ? htons(ETH_P_ALL) : 0,
        .sll_ifindex = if_nametoindex(argv[2]),
    };
    if (wire < 0 || !address.sll_ifindex || bind(wire, (struct sockaddr *)&address, sizeof address)) {
        perror(argv[2]);
        return 1;
    }
    if (sending) {
        size_t length = 0;
        for (const char *hex = argv[3]; sscanf(hex, "%2hhx", &frame[length]) == 1; hex += 2)
            length++;
        if (send(wire, frame, length, 0) != (ssize_t)length) {
            perror("send");
            return 1;
        }
        return 0;
    }
    for (;;) {
        socklen_t size = sizeof address;
        ssize_t length = recvfrom(wire, frame, sizeof frame, 0, (struct sockaddr *)&address, &size);
        if (length < 0) {
            perror("recvfrom");
            return 1;
        }
        if (address.sll_pkttype == PACKET_OUTGOING)
            continue;
        for (ssize_t i = 0; i < length; i++)
            printf("%02x", frame[i]);
        puts("");
        fflush(stdout);
    }
}
