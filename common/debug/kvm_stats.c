/* kvm_stats.c - KVM's own statistics: api.rst 4.133 KVM_GET_STATS_FD. */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "debug/meter.h"

#define DESCRIPTOR_MAX 512 /* bytes of a descriptor with its name */

static bool read_at(int fd, void *bytes, size_t count, size_t offset)
{
    return pread(fd, bytes, count, (off_t)offset) == (ssize_t)count;
}

/* Reads descriptor number `index`; adds its value, unless it is a histogram. */
static void stat_add(int fd, const struct kvm_stats_header *header, size_t index,
                     struct kvm_stats *stats)
{
    _Alignas(struct kvm_stats_desc) char bytes[DESCRIPTOR_MAX];
    const struct kvm_stats_desc *descriptor = (const struct kvm_stats_desc *)bytes;
    const size_t size = sizeof *descriptor + header->name_size;
    struct kvm_stat *stat = &stats->stats[stats->count];

    if (stats->count == KVM_STATS_MAX || size > sizeof bytes ||
        !read_at(fd, bytes, size, header->desc_offset + index * size) || descriptor->size != 1 ||
        !read_at(fd, &stat->value, sizeof stat->value, header->data_offset + descriptor->offset))
        return;
    snprintf(stat->name, sizeof stat->name, "%.*s", (int)header->name_size,
             bytes + sizeof *descriptor);
    stats->count++;
}

void kvm_stats_read(int fd, struct kvm_stats *stats)
{
    struct kvm_stats_header header;
    int stats_fd = ioctl(fd, KVM_GET_STATS_FD, NULL);

    if (stats_fd < 0)
        return;
    stats->count = 0;
    if (read_at(stats_fd, &header, sizeof header, 0))
        for (size_t i = 0; i < header.num_desc; i++)
            stat_add(stats_fd, &header, i, stats);
    close(stats_fd);
}
