// The native counterpart of guests/forever.wat, and the pause program of the
// peer's sandboxes: with an argument it says that it is ready, then it waits
// for SIGTERM. No libc, so that the peer's side is as small as it can be.
//
//	cc -Os -static -nostdlib -ffreestanding -fno-stack-protector -o idle idle.c

#if defined(__x86_64__)
enum { sys_write = 1, sys_sigprocmask = 14, sys_sigtimedwait = 128, sys_exit = 231 };
static long call(long n, long a, long b, long c, long d)
{
	long r;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return r;
}
__asm__(".globl _start\n_start:\n\tmov (%rsp), %rdi\n\tand $-16, %rsp\n\tcall idle\n");
#elif defined(__aarch64__)
enum { sys_write = 64, sys_sigprocmask = 135, sys_sigtimedwait = 137, sys_exit = 94 };
static long call(long n, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}
__asm__(".globl _start\n_start:\n\tldr x0, [sp]\n\tbl idle\n");
#endif

__attribute__((used)) void idle(long argc)
{
	// SIGINT and SIGTERM. As process 1 a default action would not be taken;
	// blocked and waited for, they arrive.
	unsigned long set = 1ul << (2 - 1) | 1ul << (15 - 1);
	call(sys_sigprocmask, 0, (long)&set, 0, sizeof set);
	if (argc > 1)
		call(sys_write, 1, (long)"ready\n", 6, 0);
	while (call(sys_sigtimedwait, (long)&set, 0, 0, sizeof set) < 0)
		;
	call(sys_exit, 0, 0, 0, 0);
	for (;;)
		;
}
