/*
 * library_calls.c - the calls of the C library that show a module's work from outside: when it
 * makes an interrupt pending, injects it, kicks a vCPU, reads a device. The program is linked so
 * that its calls of NAME reach __wrap_NAME (ld's --wrap; the list is in vmm.mk), and __real_NAME is
 * the library's own function.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "debug/debug.h"

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __real_pthread_kill(pthread_t thread, int number);
int __wrap_pthread_kill(pthread_t thread, int number);
int __real_timerfd_create(clockid_t clock, int flags);
int __wrap_timerfd_create(clockid_t clock, int flags);
ssize_t __real_read(int fd, void *bytes, size_t count);
ssize_t __wrap_read(int fd, void *bytes, size_t count);
ssize_t __wrap___read_chk(int fd, void *bytes, size_t count, size_t room);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;

    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    int result = __real_ioctl(fd, request, argument);
    if (request == KVM_INTERRUPT && result == 0)
        OBSERVE(injected, fd, ((struct kvm_interrupt *)argument)->irq);
    return result;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    OBSERVE(unlock, mutex);
    return __real_pthread_mutex_unlock(mutex);
}

int __wrap_pthread_kill(pthread_t thread, int number)
{
    OBSERVE(signal, thread, number);
    return __real_pthread_kill(thread, number);
}

int __wrap_timerfd_create(clockid_t clock, int flags)
{
    int fd = __real_timerfd_create(clock, flags);

    if (fd >= 0)
        OBSERVE(timer, fd);
    return fd;
}

ssize_t __wrap_read(int fd, void *bytes, size_t count)
{
    ssize_t done = __real_read(fd, bytes, count);
    int error = errno;

    OBSERVE(device_read, fd, bytes, done);
    errno = error;
    return done;
}

/* What read becomes with _FORTIFY_SOURCE, if the compiler knows how large the buffer is. */
ssize_t __wrap___read_chk(int fd, void *bytes, size_t count, size_t room)
{
    if (count > room)
        abort();
    return __wrap_read(fd, bytes, count);
}
