// A tunnel for as long as this program runs, however it ends: go run program.go [port]
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	port := append(os.Args, "8080")[1]
	var said bytes.Buffer
	tunnel := exec.Command("tunnel", "-ij", port)
	tunnel.Stderr = &said
	input, _ := tunnel.StdinPipe()
	output, _ := tunnel.StdoutPipe()
	if tunnel.Start() != nil {
		fmt.Fprintln(os.Stderr, "tunnel is not installed")
		os.Exit(127)
	}
	var record struct{ URL string }
	line, _ := bufio.NewReader(output).ReadBytes('\n')
	if json.Unmarshal(line, &record) != nil {
		tunnel.Wait()
		lines := bytes.Split(bytes.TrimSpace(said.Bytes()), []byte("\n"))
		status := tunnel.ProcessState.ExitCode()
		fmt.Fprintf(os.Stderr, "no tunnel, status %d: %s\n", status, lines[len(lines)-1])
		os.Exit(status)
	}

	fmt.Println(record.URL)
	io.Copy(io.Discard, os.Stdin) // what the program does

	input.Close()
	tunnel.Wait()
}
