/*
 * Runs Xen's own xenstored on a machine without Xen (LD_PRELOAD).  The tests
 * compare the store of the hub with it.
 *
 * The shim replaces the hypervisor calls of xenstored.  Clients on its unix
 * socket are domain 0, as on a Xen host.  Every other domain has a ring page,
 * which is a file here, so that a test can act as a guest:
 *
 *   $NO_HYPERVISOR/ring-<domid>  the page; the domain exists while the file does
 *   $NO_HYPERVISOR/events-in     a FIFO: a byte wakes xenstored like an event
 *   $NO_HYPERVISOR/events-out    a FIFO: xenstored writes a byte for each event
 *                                that it sends to a domain
 *
 * Build: cc -shared -fPIC -O2 -o no_hypervisor.so no_hypervisor.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define VIRQ_PORT 2	/* what xenstored gets for "a domain has changed" */
#define OTHER_PORT 3	/* any other: xenstored then checks all rings */

static int events_in = -1, events_out = -1;
static char handle;	/* what the libraries return pointers to */

static int in_dir(const char *name, int flags)
{
	const char *dir = getenv("NO_HYPERVISOR");
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", dir ? dir : "/nonexistent", name);
	return open(path, flags | O_CLOEXEC);
}

static int ring_of(uint32_t domid)
{
	char name[32];

	snprintf(name, sizeof(name), "ring-%u", domid);
	return in_dir(name, O_RDWR);
}

/* Domain 0's port and page, which xenstored reads from files of the kernel. */
static int open_substitute(const char *path)
{
	int fd;

	if (!strcmp(path, "/proc/xen/xsd_port") || !strcmp(path, "/dev/xen/xsd_port")) {
		fd = memfd_create("port", MFD_CLOEXEC);
		if (fd >= 0 && pwrite(fd, "1", 1, 0) == 1)
			return fd;
	} else if (!strcmp(path, "/proc/xen/xsd_kva") || !strcmp(path, "/dev/xen/xsd_kva")) {
		fd = memfd_create("page", MFD_CLOEXEC);
		if (fd >= 0 && !ftruncate(fd, PAGE))
			return fd;
	}
	return -1;
}

int open(const char *path, int flags, ...)
{
	static int (*real)(const char *, int, ...);
	int mode = 0, fd = open_substitute(path);

	if (fd >= 0)
		return fd;
	if (flags & (O_CREAT | O_TMPFILE)) {
		va_list args;

		va_start(args, flags);
		mode = va_arg(args, int);
		va_end(args);
	}
	if (!real)
		real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	return real(path, flags, mode);
}

/*
 * Time runs a thousand times faster, so that tests need not wait: xenstored
 * limits the rate at which a guest writes while transactions are open.
 */
int clock_gettime(clockid_t clock, struct timespec *now)
{
	static int (*real)(clockid_t, struct timespec *);
	int ret;

	if (!real)
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	ret = real(clock, now);
	if (!ret && clock == CLOCK_MONOTONIC) {
		now->tv_sec = now->tv_sec * 1000 + now->tv_nsec / 1000000;
		now->tv_nsec = now->tv_nsec % 1000000 * 1000;
	}
	return ret;
}

/* Event channels. */
void *xenevtchn_open(void *logger, unsigned int flags)
{
	events_in = in_dir("events-in", O_RDWR | O_NONBLOCK);
	events_out = in_dir("events-out", O_RDWR | O_NONBLOCK);
	return events_in >= 0 && events_out >= 0 ? &handle : NULL;
}

int xenevtchn_fd(void *h)
{
	return events_in;
}

int xenevtchn_notify(void *h, uint32_t port)
{
	if (write(events_out, "", 1) < 0) {
		/* Full: the reader wakes up anyway. */
	}
	return 0;
}

int xenevtchn_bind_interdomain(void *h, uint32_t domid, uint32_t port)
{
	return port;
}

int xenevtchn_bind_virq(void *h, unsigned int virq)
{
	return VIRQ_PORT;
}

int xenevtchn_unbind(void *h, uint32_t port)
{
	return 0;
}

int xenevtchn_pending(void *h)
{
	char bytes[64];

	return read(events_in, bytes, sizeof(bytes)) > 0 ? OTHER_PORT : -1;
}

int xenevtchn_unmask(void *h, uint32_t port)
{
	return 0;
}

/* Grants: xenstored maps only the ring pages. */
void *xengnttab_open(void *logger, unsigned int flags)
{
	return &handle;
}

int xengnttab_close(void *h)
{
	return 0;
}

int xengnttab_set_max_grants(void *h, uint32_t count)
{
	return 0;
}

void *xengnttab_map_grant_ref(void *h, uint32_t domid, uint32_t ref, int prot)
{
	int fd = ring_of(domid);
	void *page;

	if (fd < 0)
		return NULL;
	page = mmap(NULL, PAGE, prot, MAP_SHARED, fd, 0);
	close(fd);
	return page == MAP_FAILED ? NULL : page;
}

int xengnttab_unmap(void *h, void *page, uint32_t count)
{
	return munmap(page, (size_t)count * PAGE);
}

/* Domains. */
void *xc_interface_open(void *logger, void *other, unsigned int flags)
{
	return &handle;
}

int xc_interface_close(void *h)
{
	return 0;
}

/*
 * The result begins with domid, ssidref and a word of flags (dying, crashed,
 * shutdown, ...).  xenstored reads no more of it.
 */
int xc_domain_getinfo(void *h, uint32_t first, unsigned int max, void *info)
{
	uint32_t *words = info;
	int fd = ring_of(first);

	if (fd < 0 || !max)
		return 0;
	close(fd);
	words[0] = first;
	words[1] = words[2] = 0;
	return 1;
}
