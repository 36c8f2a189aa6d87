package pod_test

const daemonEnv = "LIMPET_TEST_DAEMON"

func daemon(string) int { return 1 }
